"""What a GPU says of its faults, as MLX words it on Metal and CUDA, and the kind of each."""

RESOURCE_LIMIT = "RuntimeError: [metal::malloc] Resource limit (499000) exceeded."
OF_METAL = {
    "Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)": (
        "watchdog"
    ),
    "Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)": "watchdog",
    "Caused GPU Hang Error (00000003:kIOGPUCommandBufferCallbackErrorHang)": "watchdog",
    "Ignored (for causing prior/excessive GPU errors) "
    "(00000004:kIOGPUCommandBufferCallbackErrorSubmissionsIgnored)": "gpu",
    "Discarded (victim of GPU error/recovery) "
    "(00000005:kIOGPUCommandBufferCallbackErrorInnocentVictim)": "gpu",
    "Caused GPU Address Fault Error (0000000b:kIOGPUCommandBufferCallbackErrorPageFault)": "gpu",
    "Internal Error (0000000e:Internal Error)": "gpu",
    "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)": "out_of_memory",
    "Out of Resources (00000009:kIOGPUCommandBufferCallbackErrorOutOfResources)": "resource_limit",
}
TEXTS = {
    **{f"[METAL] Command buffer execution failed: {text}": kind for text, kind in OF_METAL.items()},
    "[metal::malloc] Attempting to allocate 28611722496 bytes which is greater than the maximum "
    "allowed buffer size of 9534832640 bytes.": "out_of_memory",
    RESOURCE_LIMIT: "resource_limit",
    "cudaMallocAsync(&data, size, stream) failed: out of memory": "out_of_memory",
    "cudaStreamSynchronize(stream_) failed: an illegal memory access was encountered": "gpu",
    "cudaGraphLaunch(graph, stream) failed: the launch timed out and was terminated": "gpu",
    "cudaGraphLaunch(graph, stream) failed: unspecified launch failure": "gpu",
}
