"""The Optuna dashboard: its server, the mirror of the study in Optuna's storage, notes and artifacts."""
