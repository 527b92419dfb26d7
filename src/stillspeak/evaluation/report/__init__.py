"""The report: tables, plots and contact sheets."""
