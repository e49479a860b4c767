"""The project's macros. Every target goes through one of these.

C++20 comes from .bazelrc; warnings are errors here, for our own code only.
"""

load("@local_cuda//:defs.bzl", "NVCC")
load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_library", "cc_test")

_COPTS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-missing-field-initializers",
    # False alarms of gcc 12 on std::string (GCC bug 105651); clang does not know the name.
    "-Wno-restrict",
    "-Wno-unknown-warning-option",
    "-Wnon-virtual-dtor",
    "-Woverloaded-virtual",
]

# Every target logs and CHECKs, and returns absl::Status.
_DEPS = [
    "//third_party:absl",
    "//third_party:glog",
]

def only_if(setting):
    """For target_compatible_with: skips the target unless the config_setting holds."""
    return select({
        setting: [],
        "//conditions:default": ["//bazel:incompatible"],
    })

def tarn_library(name, copts = [], deps = [], **kwargs):
    """A cc_library with the project's warnings. Private unless it says otherwise."""
    cc_library(name = name, copts = _COPTS + copts, deps = deps + _DEPS, **kwargs)

def tarn_binary(name, copts = [], deps = [], **kwargs):
    """A cc_binary with the project's warnings."""
    cc_binary(name = name, copts = _COPTS + copts, deps = deps + _DEPS, **kwargs)

def tarn_test(name, srcs, copts = [], deps = [], size = "small", **kwargs):
    """A GoogleTest. Tag "process" what starts the release binaries, "grpc" what talks through gRPC,
    "single-threaded" what is and takes long to build (sanitizers leave them out: see tests/run)."""
    cc_test(
        name = name,
        srcs = srcs,
        copts = _COPTS + copts,
        deps = deps + _DEPS + ["//third_party:gtest"],
        size = size,
        **kwargs
    )

def tarn_bench(name, srcs, copts = [], deps = [], **kwargs):
    """A Google Benchmark binary: built by //..., run by hand or by tests/bench."""
    cc_binary(
        name = name,
        testonly = True,
        srcs = srcs,
        copts = _COPTS + copts,
        deps = deps + _DEPS + ["//third_party:benchmark"],
        **kwargs
    )

def tarn_proto(name, src, deps = [], grpc = True, **kwargs):
    """A cc_library with the C++ code protoc makes from one .proto file.

    Args:
      name: name of the cc_library.
      src: the .proto file; imported by its path from the workspace root.
      deps: other tarn_proto targets that src imports.
      grpc: whether to generate the gRPC service code as well.
      **kwargs: passed to the cc_library.
    """
    stem = src[:-len(".proto")]
    kinds = [".pb"] + ([".grpc.pb"] if grpc else [])
    hdrs = [stem + kind + ".h" for kind in kinds]
    srcs = [stem + kind + ".cc" for kind in kinds]
    plugin = ""
    quiet = ""
    if grpc:
        # Every callback service hides the synchronous methods it inherits: -Woverloaded-virtual
        # would refuse them all, but not in a system header.
        quiet = " && sed -i '1i #pragma GCC system_header' $(location %s.grpc.pb.h)" % stem
        plugin = "--plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin --grpc_out=$(GENDIR)"
    native.filegroup(
        name = name + "_protos",
        srcs = [src] + [dep + "_protos" for dep in deps],
    )
    native.genrule(
        name = name + "_gen",
        srcs = [src] + [dep + "_protos" for dep in deps],
        outs = hdrs + srcs,
        cmd = "/usr/bin/protoc -I. --cpp_out=$(GENDIR) %s $(location %s)%s" % (plugin, src, quiet),
        message = "protoc",
    )
    cc_library(
        name = name,
        srcs = srcs,
        hdrs = hdrs,
        copts = ["-Wno-unused-parameter"],
        deps = deps + ["//third_party:grpc" if grpc else "//third_party:protobuf"],
        **kwargs
    )

def cuda_library(name, srcs, hdrs = [], deps = [], archs = ["90a"], copts = [], **kwargs):
    """A cc_library from .cu files; skipped without --config=cuda.

    Args:
      name: name of the cc_library.
      srcs: the .cu files.
      hdrs: every project header that they include.
      deps: libraries to link.
      archs: compute capabilities to compile for.
      copts: further flags for nvcc.
      **kwargs: passed to the cc_library.
    """
    gencode = " ".join(["-gencode arch=compute_%s,code=sm_%s" % (a, a) for a in archs])
    objs = []
    for src in srcs:
        obj = "%s_%s.pic.o" % (name, src.replace("/", "_"))
        native.genrule(
            name = obj + "_nvcc",
            srcs = [src] + hdrs,
            outs = [obj],
            cmd = " ".join([
                NVCC,
                "-std=c++20 -O3 -lineinfo -Xcompiler -fPIC -I. -I$(GENDIR)",
                gencode,
            ] + copts + ["-c $(location %s) -o $@" % src]),
            message = "nvcc",
            target_compatible_with = only_if("//bazel:cuda"),
        )
        objs.append(obj)
    cc_library(
        name = name,
        srcs = objs,
        hdrs = hdrs,
        linkstatic = True,
        target_compatible_with = only_if("//bazel:cuda"),
        deps = deps + ["@local_cuda//:cudart"],
        **kwargs
    )

def fuzz_test(name, srcs, deps = [], **kwargs):
    """A libFuzzer binary; skipped without --config=fuzz."""
    cc_binary(
        name = name,
        testonly = True,
        srcs = srcs,
        linkopts = ["-fsanitize=fuzzer"],
        target_compatible_with = only_if("//bazel:fuzz"),
        deps = deps,
        **kwargs
    )
