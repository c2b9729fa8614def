"Pickles whose payload makes a file, in every container that a reader may meet."

import os
import pickle
import shlex
import subprocess

import numpy as np
import torch


class Payload:
    def __init__(self, mark, how):
        self.mark, self.how = str(mark), how

    def __reduce__(self):
        calls = {
            "open": (open, (self.mark, "w")),
            "system": (os.system, (f"touch {shlex.quote(self.mark)}",)),
            "exec": (exec, (f"open({self.mark!r}, 'w')",)),
            "popen": (subprocess.Popen, (["touch", self.mark],)),
        }
        return calls[self.how]


def object_array(path, value):
    np.save(path, np.array([value, value], object), allow_pickle=True)


def packed_objects(path, value):
    np.savez(path, masks=np.array([value], object))


def raw_pickle(path, value):
    path.write_bytes(pickle.dumps(value))


def torch_file(path, value):
    torch.save(dict(state_dict={"mct.cls_token": value}, epoch=value), path)


def legacy_torch_file(path, value):
    torch.save(dict(state_dict={}, epoch=value), path, _use_new_zipfile_serialization=False)


def labels_file(path, value):
    np.save(path, {"2007_000032": value}, allow_pickle=True)
