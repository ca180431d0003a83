"""What a run leaves behind: its folder and the contents of its files. Imports `deproj.settings` and `deproj.process`."""
