"""Observers: what a run reports, as JSON lines or for TensorBoard, Weights & Biases and MLflow."""
