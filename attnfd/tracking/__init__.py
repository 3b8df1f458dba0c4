"""All use of MLflow: the store, a run per model, a run per report, the registry."""
