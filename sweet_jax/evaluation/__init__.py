"""From logit banks to scores, costs and speed-accuracy curves."""
