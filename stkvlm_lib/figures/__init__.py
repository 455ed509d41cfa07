"""What people look at in notebooks and reports: tables, pictures, plots."""
