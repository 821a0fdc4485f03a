"""Founding a federation over the network: one founder's desk, and the invited members that come to it.

There is no federation yet, so there is no daemon and no ledger: the desk is a command in the foreground, and all that
it and a member know lies in their homes, written before it is sent.
"""
