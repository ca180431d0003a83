"""What any program of many processes, files and signals needs; it knows nothing of deprojectors and imports no other folder."""
