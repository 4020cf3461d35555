"""The demonstration: the whole pipeline on a real table, with a scripted model.

Scripted are Claude's words: the plan, and which tools each agent calls. Real is all the
rest: the agents, the Claude CLI, the tools, PostgreSQL and Redis. Every figure is
computed by the tools from the file, so with another table come other figures.
"""
