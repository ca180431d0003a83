"""States to pictures and sheets. Imports clip and what that imports."""
