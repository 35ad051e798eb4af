"""The rows of benches/rows/mod.rs as other programs compute them.

Each function takes nothing and returns a function without arguments that computes the row once. Sizes and operations
are those of the Rust file; the data's values do not matter to any of these programs.
"""

N = 4096
CHAIN = 16 << 20
MATVEC = (73_728, 2304)
ATTENTION = (8, 1024, 64)
MLP = (784, 128, 64, 10)


def torch_rows(threads):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)

    def matmul(n):
        a, b = torch.randn(n, n), torch.randn(n, n)
        return lambda: a @ b

    def matvec(dtype):
        w, x = torch.randn(MATVEC).to(dtype), torch.randn(1, MATVEC[1]).to(dtype)
        return lambda: x @ w.T

    def chain(rows):
        n = (N, N) if rows else (CHAIN,)
        x, z = torch.randn(n), torch.randn(n)
        w, b = (torch.randn(n[-1]), torch.randn(n[-1]))
        return lambda: F.gelu(x * w + b, approximate="tanh") * torch.sigmoid(z)

    def norm(op):
        x, w, b = torch.randn(N, N), torch.randn(N), torch.randn(N)
        ops = {
            "softmax": lambda: torch.softmax(x, 1),
            "layer_norm": lambda: F.layer_norm(x, (N,), w, b, 1e-5),
            "rms_norm": lambda: F.rms_norm(x, (N,), w, 1e-6),
        }
        return ops[op]

    def attention(causal):
        q, k, v = (torch.randn(1, *ATTENTION) for _ in range(3))
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    def mlp():
        layers = [(torch.randn(o, i) * 0.05, torch.randn(o)) for i, o in zip(MLP, MLP[1:])]
        x = torch.randn(1, MLP[0])

        def run():
            y = F.relu(F.linear(x, *layers[0]))
            return F.linear(F.relu(F.linear(y, *layers[1])), *layers[2])

        return run

    return {
        "matmul_512": lambda: matmul(512),
        "matmul_1024": lambda: matmul(1024),
        "matmul_2048": lambda: matmul(2048),
        "matmul_7": lambda: matmul(7),
        "matmul_17": lambda: matmul(17),
        "matmul_63": lambda: matmul(63),
        "matmul_129": lambda: matmul(129),
        "matmul_1000": lambda: matmul(1000),
        "matvec_f32": lambda: matvec(torch.float32),
        "matvec_bf16": lambda: matvec(torch.bfloat16),
        "gelu_chain": lambda: chain(False),
        "gelu_chain_rows": lambda: chain(True),
        "softmax": lambda: norm("softmax"),
        "layer_norm": lambda: norm("layer_norm"),
        "rms_norm": lambda: norm("rms_norm"),
        "attention": lambda: attention(False),
        "attention_causal": lambda: attention(True),
        "mlp": mlp,
    }


def numpy_rows(threads):
    import numpy as np

    def matmul(n):
        a, b = (np.random.rand(n, n).astype(np.float32) for _ in range(2))
        out = np.empty((n, n), np.float32)
        return lambda: np.matmul(a, b, out=out)

    def matvec():
        w = np.random.rand(*MATVEC).astype(np.float32)
        x, out = np.random.rand(MATVEC[1]).astype(np.float32), np.empty(MATVEC[0], np.float32)
        return lambda: np.matmul(w, x, out=out)

    return {
        "matmul_512": lambda: matmul(512),
        "matmul_1024": lambda: matmul(1024),
        "matmul_2048": lambda: matmul(2048),
        "matmul_7": lambda: matmul(7),
        "matmul_17": lambda: matmul(17),
        "matmul_63": lambda: matmul(63),
        "matmul_129": lambda: matmul(129),
        "matmul_1000": lambda: matmul(1000),
        "matvec_f32": matvec,
    }


def onnxruntime_rows(threads):
    import numpy as np
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    def session(nodes, inputs, output, weights=()):
        info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        constants = [numpy_helper.from_array(value, name) for name, value in weights]
        graph = helper.make_graph(
            nodes, "row", [info(*pair) for pair in inputs], [info(*output)], constants
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        made = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feeds = {name: np.random.rand(*shape).astype(np.float32) for name, shape in inputs}
        return lambda: made.run(None, feeds)

    def random(*shape):
        return (0.05 * np.random.rand(*shape)).astype(np.float32)

    def mlp():
        nodes, weights, x = [], [], "x"
        for i, (inner, outer) in enumerate(zip(MLP, MLP[1:])):
            weights += [(f"w{i}", random(outer, inner)), (f"b{i}", random(outer))]
            nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"y{i}"], transB=1))
            x = f"y{i}"
            if outer > 10:
                nodes.append(helper.make_node("Relu", [x], [f"z{i}"]))
                x = f"z{i}"
        return session(nodes, [("x", (1, MLP[0]))], (x, (1, MLP[-1])), weights)

    def matmul(n):
        node = helper.make_node("MatMul", ["a", "b"], ["c"])
        return session([node], [("a", (n, n)), ("b", (n, n))], ("c", (n, n)))

    def softmax():
        node = helper.make_node("Softmax", ["x"], ["y"], axis=1)
        return session([node], [("x", (N, N))], ("y", (N, N)))

    def layer_norm():
        node = helper.make_node("LayerNormalization", ["x", "w", "b"], ["y"], axis=-1)
        weights = [("w", random(N)), ("b", random(N))]
        return session([node], [("x", (N, N))], ("y", (N, N)), weights)

    return {
        "matmul_512": lambda: matmul(512),
        "matmul_1024": lambda: matmul(1024),
        "matmul_2048": lambda: matmul(2048),
        "matmul_7": lambda: matmul(7),
        "matmul_17": lambda: matmul(17),
        "matmul_63": lambda: matmul(63),
        "matmul_129": lambda: matmul(129),
        "matmul_1000": lambda: matmul(1000),
        "softmax": softmax,
        "layer_norm": layer_norm,
        "mlp": mlp,
    }


PEERS = {"torch": torch_rows, "numpy": numpy_rows, "onnxruntime": onnxruntime_rows}
