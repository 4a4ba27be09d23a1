"""Twelve faults, one program, every framework that can be installed: what each does, judged by a ledger of effects."""
