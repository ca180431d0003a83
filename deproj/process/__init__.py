"""What any program of many processes, files and signals needs; knows nothing of deprojectors, imports no other folder."""
