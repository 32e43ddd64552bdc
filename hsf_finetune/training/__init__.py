"""Steps, losses, callbacks and the fit."""
