"""How good a model is: measures, baselines, and several models compared. Imports data, model, draw."""
