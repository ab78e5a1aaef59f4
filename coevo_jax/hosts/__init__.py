"""The processes of a run, one per host: how they meet, agree, share what they played, and end together."""
