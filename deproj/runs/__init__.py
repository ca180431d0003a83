"""What a run leaves behind: its folder and what its files say. Imports `deproj.settings` and `deproj.process`."""
