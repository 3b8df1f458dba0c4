"""Attention-guided Feature Distillation for semantic segmentation."""
