"""The page in the browser. Needs the extra ``demo`` (Gradio). Imports `deproj.pipeline` and the floors below it."""
