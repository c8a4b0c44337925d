"""Trials that run in turn: is the input the limit, and what is fastest on this machine?"""
