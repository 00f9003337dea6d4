"""How the models are made and judged: photographs, damage, networks, training, evaluation.

Nothing here is needed to run a job.
"""
