#!/usr/bin/python3
"""Checks the dependency arrows of docs/architecture.md over #includes and BUILD deps, and that no two
headers define a class of one name in one namespace: the linker would take either for both.

Usage: check_arrows.py [ROOT]. Prints one line a violation and exits 1 if there is any.
`check_arrows.py --self-test` breaks each rule in a scratch tree and expects to be told.
"""
import os
import re
import sys
import tempfile

# Which rooms a room may use, itself and third-party libraries apart. The first match decides.
ROOMS = [
    ("common/", {"common"}),
    ("proto/", {"proto"}),
    ("engine/wire/", {"common", "proto"}),
    ("engine/request/", {"common", "proto"}),
    ("engine/", {"common"}),
    ("kvstore/core/", {"common"}),
    ("kvstore/", {"common", "proto"}),
    ("prefill_node/", {"common", "proto", "engine", "kvstore"}),
    ("decode_node/", {"common", "proto", "engine", "kvstore"}),
    ("router/policy/", {"common", "kvstore"}),
    ("router/", {"common", "proto", "engine", "kvstore"}),
    ("client/", {"common", "proto", "engine", "sim"}),
    ("sim/workload/", {"common"}),
    ("sim/cost/", {"common"}),
    ("sim/", {"common", "engine", "kvstore", "prefill_node", "decode_node", "router"}),
]

# What decides takes an event and `now`, and returns actions: none of these.
BRAINS = ["kvstore/core/", "prefill_node/batching/", "decode_node/scheduling/", "router/policy/"]
BRAIN_FILES = ["router/session/request_state.h", "router/session/request_state.cc"]
IMPURE = re.compile(
    r"grpc|google/protobuf|^proto/|boost/|rocksdb|ucp/|ucs/|cuda|nccl|^thread$|^mutex$|^atomic$|"
    r"condition_variable|^chrono$|^fstream$|^filesystem$|^iostream$|^future$|^random$|absl/flags|"
    r"absl/synchronization|absl/time/clock|common/(rpc|http|config|transport)/|event_loop|base/mutex")
IMPURE_CALL = re.compile(r"absl::Now\(|::now\(\)|getenv\(|std::rand\(|random_device")

# Layers of a role, outermost first: a layer includes only itself and what comes after it.
LAYERS = {
    "prefill_node": ["server", "session", "batching"],
    "decode_node": ["server", "session", "scheduling"],
    "router": ["server", "frontend", "dashboard", "session", "index", "policy"],
    "kvstore": ["server", "client", "directory", "wire", "tier", "core"],
    "sim": ["planner", "cluster", "cost", "workload"],
}

# Vendor headers stay behind the folder that wraps them; nowhere else in a header.
VENDORS = [
    (re.compile(r"^ucp/|^ucs/|^uct/"), ["common/transport/ucx/"]),
    (re.compile(r"^infiniband/|^rdma/"), ["common/transport/verbs/"]),
    (re.compile(r"^boost/"), ["common/http/connection."]),
    (re.compile(r"^rocksdb/"), ["kvstore/tier/ssd/"]),
    (re.compile(r"^cuda|^cublas|^nccl"), ["engine/cuda/"]),
    (re.compile(r"^pcre2"), ["engine/text/internal/"]),
    (re.compile(r"^CLI/"), ["common/config/"]),
    (re.compile(r"^grpcpp/|^grpc/"), ["common/rpc/"]),
]

NAMESPACE = re.compile(r"^namespace ([\w:]+) \{")
CLASS = re.compile(r"^(?:class|struct|union)(?: alignas\(\w+\)| ABSL_\w+)* (\w+)(?: final)?(?: :[^;]*| )?\{")
SOURCE = re.compile(r"\.(h|cc|cu|cuh)$")
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^">]+)[">]')
LABEL = re.compile(r'"//([a-z_]+)(?:/([a-z_0-9/]*))?(?::[^"]*)?"')
TEST = re.compile(r"(_test|_bench|_fuzz)\.cc$|/(fake|test)_[^/]*$|conformance|(^|/)testing/")


def files(root):
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith((".", "bazel-"))]
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")


def room_of(path):
    return path.split("/", 1)[0]


def allowed_rooms(path):
    for prefix, rooms in ROOMS:
        if path.startswith(prefix):
            return rooms | {room_of(path)}
    return None


def layer_error(path, target):
    """Names the arrow if `path` uses an outer layer of its own role."""
    room = room_of(path)
    if room_of(target) != room or room not in LAYERS:
        return None
    layers = LAYERS[room]
    here, there = path.split("/")[1], target.split("/")[1] if "/" in target else ""
    if here in layers and there in layers and layers.index(there) < layers.index(here):
        return "%s/%s must not use %s/%s" % (room, here, room, there)
    return None


def check_source(path, text):
    rooms = allowed_rooms(path)
    if rooms is None or TEST.search(path):
        return
    brain = path.startswith(tuple(BRAINS)) or path in BRAIN_FILES
    all_rooms = {room_of(prefix) for prefix, _ in ROOMS}
    for number, line in enumerate(text.splitlines(), 1):
        where = "%s:%d: " % (path, number)
        if brain and IMPURE_CALL.search(line):
            yield where + "a brain reads clock, environment or entropy"
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match.group(1)
        room = room_of(header)
        if "/" in header and room in all_rooms and room not in rooms:
            yield where + "%s must not include %s" % (room_of(path), header)
        error = layer_error(path, header)
        if error:
            yield where + error
        if brain and IMPURE.search(header):
            yield where + "a brain must not include " + header
        if path.endswith(".h"):
            for vendor, homes in VENDORS:
                if vendor.search(header) and not path.startswith(tuple(homes)) and \
                        not re.search(r"/(server|frontend|directory|client|session)/", "/" + path):
                    yield where + "vendor header %s outside %s" % (header, ", ".join(homes))


def check_build(path, text):
    rooms = allowed_rooms(path)
    if rooms is None:
        return
    all_rooms = {room_of(prefix) for prefix, _ in ROOMS}
    if "//visibility:public" in text and room_of(path) not in ("common", "proto") and \
            re.search(r"default_visibility\s*=\s*\[\s*\"//visibility:public", text):
        yield path + ": default visibility must be private"
    # Visibility lists name other rooms by design; tests may use what they need.
    text = re.sub(r'"//[^"]*:__(subpackages|pkg)__"', "", text)
    text = re.sub(r"tarn_(test|bench)\((.|\n)*?\n\)", "", text)
    text = re.sub(r"[a-z_]+\((?:(?!\n\)).|\n)*?testonly = (True|1)(?:(?!\n\)).|\n)*?\n\)", "", text)
    for match in LABEL.finditer(text):
        room = match.group(1)
        if room in all_rooms and room not in rooms:
            yield "%s: must not depend on //%s" % (path, room)
        if match.group(2):
            error = layer_error(path, room + "/" + match.group(2))
            if error:
                yield "%s: %s" % (path, error)


def classes(text):
    """Names of the classes that a header defines, with their namespace."""
    namespace = ""
    for line in text.splitlines():
        if match := NAMESPACE.match(line):
            namespace = match.group(1)
        elif match := CLASS.match(line):
            yield namespace + "::" + match.group(1)


def check(root):
    defined = {}
    for path in sorted(files(root)):
        is_build = os.path.basename(path) in ("BUILD", "BUILD.bazel")
        if not is_build and not SOURCE.search(path):
            continue
        with open(os.path.join(root, path), encoding="utf-8") as f:
            text = f.read()
        yield from (check_build if is_build else check_source)(path, text)
        if path.endswith(".h") and not TEST.search(path):
            for name in classes(text):
                if defined.setdefault(name, path) != path:
                    yield "%s: %s is defined in %s too" % (path, name, defined[name])


BROKEN = {
    "common/base/a.h": '#include "engine/executor.h"',
    "kvstore/core/b.h": "#include <grpcpp/grpcpp.h>",
    "kvstore/core/c.cc": "auto t = absl::Now();",
    "kvstore/core/d.h": '#include "kvstore/client/node_pool.h"',
    "kvstore/client/e.h": '#include "router/session/gateway.h"',
    "prefill_node/session/f.cc": '#include "decode_node/session/session.h"',
    "prefill_node/session/g.cc": '#include "prefill_node/server/server.h"',
    "router/session/h.cc": '#include "prefill_node/batching/batcher.h"',
    "router/policy/i.cc": '#include "proto/common.pb.h"',
    "router/session/request_state.cc": "#include <thread>",
    "engine/cpu/j.h": '#include "kvstore/core/types.h"',
    "engine/cpu/k.h": "#include <ucp/api/ucp.h>",
    "decode_node/scheduling/BUILD": 'tarn_library(name = "x", deps = ["//router/policy:y"])',
    "kvstore/core/BUILD": 'tarn_library(name = "x", deps = ["//kvstore/client:y"])',
    "router/BUILD": 'package(default_visibility = ["//visibility:public"])',
    "kvstore/tier/l.h": "namespace tarn::kvstore {\nstruct Twice {",
}
CLEAN = {
    "kvstore/core/ok.h": "namespace tarn::kvstore {\nclass Twice : public Seam {\nclass Once;",
    "engine/model/ok.h": "namespace tarn::engine {\nclass Twice {",
    "kvstore/client/ok.cc": '#include "kvstore/core/types.h"\n#include "proto/kvstore.pb.h"',
    "kvstore/core/ok_test.cc": "#include <thread>",
    "router/policy/BUILD": 'x(visibility = ["//sim:__subpackages__"], deps = ["//common/base"])',
}


def self_test():
    with tempfile.TemporaryDirectory() as root:
        for path, text in {**BROKEN, **CLEAN}.items():
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as f:
                f.write(text + "\n")
        found = {line.split(":", 1)[0] for line in check(root)}
    missed = set(BROKEN) - found
    wrong = found - set(BROKEN)
    for path in sorted(missed):
        print("self-test: not found: %s: %s" % (path, BROKEN[path]))
    for path in sorted(wrong):
        print("self-test: wrongly blamed: " + path)
    return 1 if missed or wrong else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "../..")
    violations = list(check(root))
    for violation in violations:
        print(violation)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
