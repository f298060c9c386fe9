"""Environments: from the loop down to Gymnasium, each layer in a file.

envs.Envs                    transitions of the agent: tensors, units, returns, faults by name
  vector.Vector              seeds of episodes; what brings the copies back mid-episode
    vector.Serial            the copies, in this process
    workers.Workers          or in one process each (worker.work)
      checked.Checked        one copy, whose values are checked against its spaces
        gymnasium.Env
  native                     in place of `Vector`: copies that are stepped as one

`make` chooses among them by the environment's id and explains what cannot be made; `spaces` has
the rules for spaces and the maps to and from them; `deadline` ends what hangs in this process.
"""
