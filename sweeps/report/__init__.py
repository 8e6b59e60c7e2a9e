"""What came of a sweep, in the forms that other tools read: rows, data frames, an Optuna study, a picture for notebooks."""
