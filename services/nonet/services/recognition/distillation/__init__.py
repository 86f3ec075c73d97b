"""Making a smaller classifier of a published one by distillation, as a job."""
