/* A driver library of a machine without a GPU, for what goes through NVIDIA's bindings: addresses, sizes, handles.
 * Functions are declared as CUDA's header has them; memory of the "GPU" is the host's, far up in the address space. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef void *CUcontext, *CUstream, *CUgraph, *CUgraphExec, *CUevent;

static const uintptr_t HIGH = 0x7ead00000000u;
static void *context = (void *)0x7ead12345678u, *stream = (void *)0x7eadcafe0000u, *event = (void *)0x7eadbeef0000u;
static size_t held;

CUresult cuInit(unsigned flags) { return flags != 0; }
CUresult cuDriverGetVersion(int *version) { *version = 12080; return 0; }
CUresult cuDeviceGetCount(int *count) { *count = 1; return 0; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = 3; return ordinal != 0; }
CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    strncpy(name, "A GPU of paper", (size_t)length);
    return device != 3;
}
CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 9 : -1;
    return device != 3;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *made, CUdevice device) { *made = context; return device != 3; }
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { return device != 3; }
CUresult cuCtxSetCurrent(CUcontext given) { return given != context; }
CUresult cuStreamCreate(CUstream *made, unsigned flags) { *made = stream; return flags != 1; }
CUresult cuStreamDestroy_v2(CUstream given) { return given != stream; }
CUresult cuStreamSynchronize(CUstream given) { return given != stream; }

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    if (size > (size_t)1 << 32) return 2;
    void *made = mmap((void *)HIGH, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) return 2;
    *address = (CUdeviceptr)(uintptr_t)made;
    held = size;
    return 0;
}
CUresult cuMemFree_v2(CUdeviceptr address) { return munmap((void *)(uintptr_t)address, held) != 0; }
CUresult cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    *address = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return *address == MAP_FAILED || flags != 0;
}
CUresult cuMemFreeHost(void *address) { return address == 0; }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *source, size_t size, CUstream given) {
    memcpy((void *)(uintptr_t)to, source, size);
    return given != stream;
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr source, size_t size, CUstream given) {
    memcpy(to, (const void *)(uintptr_t)source, size);
    return given != stream;
}

CUresult cuEventCreate(CUevent *made, unsigned flags) { *made = event; return flags != 0; }
CUresult cuEventDestroy_v2(CUevent given) { return given != event; }
CUresult cuEventRecord(CUevent given, CUstream on) { return given != event || on != stream; }
CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end) {
    *milliseconds = 1.5f;
    return start != event || end != event;
}
CUresult cuStreamBeginCapture_v2(CUstream given, int mode) { return given != stream || mode != 1; }
CUresult cuStreamEndCapture(CUstream given, CUgraph *made) { *made = context; return given != stream; }
CUresult cuGraphInstantiateWithFlags(CUgraphExec *made, CUgraph graph, unsigned long long flags) {
    *made = event;
    return graph != context || flags != 0;
}
CUresult cuGraphDestroy(CUgraph given) { return given != context; }
CUresult cuGraphExecDestroy(CUgraphExec given) { return given != event; }
CUresult cuGraphLaunch(CUgraphExec given, CUstream on) { return given != event || on != stream ? 719 : 0; }

/* How the bindings find functions: by their names without a version. */
CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    static const char *const forms[] = {"%s", "%s_v2", "%sWithFlags"};
    char name[128];
    *function = 0;
    for (int i = 0; i < 3 && !*function; i++) {
        snprintf(name, sizeof name, forms[i], symbol);
        *function = dlsym(RTLD_DEFAULT, name);
    }
    if (status) *status = !*function;
    return *function ? 0 : 500;
}
