"""Raw bytes against a running prefork: what it answers, what the app sees, what happens next.

Cases are data, each tagged with the rule it stands for; `test_requests.py` runs them all.
"""
