"""How good models are: measures, baselines, settings compared. Imports `deproj.data`, `deproj.draw`, `deproj.model` and below."""
