"""`kerasseg app`: a web page on which one drops a scan, sees the tumour, and corrects it."""
