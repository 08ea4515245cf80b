# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a csv file to a classifier
#
# Open this file as a notebook with `jupytext --to ipynb notebooks/quickstart.py`, or in
# Jupyter with jupytext installed. It trains on a CPU within a few minutes.
#
# Any table with a column of texts and a column of labels will do. This one is made up:
# 600 messages to a shop, in five categories.

# %%
import csv
import random

TEMPLATES = {
    "delivery": ["where is my {}", "the {} has not arrived", "when will the {} come"],
    "refund": ["i want my money back for the {}", "please refund the {}"],
    "damage": [
        "the {} is broken",
        "my {} arrived with a scratch",
        "the {} is in pieces",
    ],
    "praise": ["i love the {}", "great {}, thank you", "the {} works very well"],
    "account": ["i cannot log in to buy the {}", "change the address for my {} order"],
}
THINGS = ["lamp", "table", "phone", "jacket", "bicycle", "kettle", "radio", "mirror"]

generator = random.Random(0)
with open("messages.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["message", "category"])
    for number in range(600):
        category = generator.choice(list(TEMPLATES))
        thing = generator.choice(THINGS)
        greeting = generator.choice(["hello", "hi", "dear team", "good morning"])
        text = generator.choice(TEMPLATES[category]).format(thing)
        writer.writerow([f"{greeting}, order {number}: {text}", category])

# %% [markdown]
# Train, measure and predict. `speedup=2` lets easy texts leave the model early, so that
# it runs about half of its layers on average.

# %%
import sweet_jax

run = sweet_jax.train("messages.csv", text="message", label="category")
run.classifier.predict(["where is my parcel?", "the cup has a crack"], speedup=2)

# %% [markdown]
# The run shows how well each exit does, and what each speed-up costs.

# %%
run

# %%
run.report

# %% [markdown]
# Predict a whole column. Each prediction has a label, a probability for each class, and
# the exit that answered.

# %%
import pandas as pd

frame = pd.read_csv("messages.csv")
predictions = run.classifier.predict(frame["message"], speedup=2)
frame["predicted"] = [prediction.label for prediction in predictions]
frame["exit"] = [prediction.exit for prediction in predictions]
frame.groupby("exit").size()
