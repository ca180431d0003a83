"""What is known of prompts as texts: the benchmark prompts, their parts, the web's marks. Imports no other folder."""
