"""deproj: train, measure and use deprojectors, the inverse of CLIP's text head."""

__version__ = "0.2.0"
