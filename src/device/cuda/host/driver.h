// The part of the CUDA driver interface that Steelyard calls, as a table of functions filled from
// libcuda.so.1 at run time. The few types are declared here (they are the driver's stable binary interface),
// so that the host side builds and is tested, against a fake table, where no CUDA toolkit is installed.
// host_test.cc compares them with cuda.h where there is one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace steelyard::cuda {

using CuResult = int;  // 0 = success
using CuDevice = int;
using CuPtr = unsigned long long;  // an address on the device
using CuMemHandle = unsigned long long;
struct CuContextObject;
struct CuStreamObject;
struct CuEventObject;
struct CuLibraryObject;
struct CuKernelObject;
struct CuFunctionObject;
struct CuGraphObject;
struct CuGraphExecObject;
using CuContext = CuContextObject*;
using CuStream = CuStreamObject*;
using CuEvent = CuEventObject*;
using CuLibrary = CuLibraryObject*;
using CuKernel = CuKernelObject*;
using CuFunction = CuFunctionObject*;
using CuGraph = CuGraphObject*;
using CuGraphExec = CuGraphExecObject*;

inline constexpr CuResult kCuOutOfMemory = 2;
inline constexpr CuResult kCuNoDevice = 100;
inline constexpr CuResult kCuNoBinary = 209;
inline constexpr CuResult kCuNotFound = 500;
inline constexpr CuResult kCuNotReady = 600;
// After these the context can't be used any more (the driver calls them sticky), or the device is gone.
inline constexpr CuResult kCuDeviceUnavailable = 46, kCuInvalidDevice = 101, kCuEccUncorrectable = 214,
                          kCuNvlinkUncorrectable = 220, kCuContained = 226, kCuIllegalAddress = 700,
                          kCuLaunchTimeout = 702, kCuContextDestroyed = 709, kCuAssert = 710,
                          kCuHardwareStack = 714, kCuIllegalInstruction = 715, kCuMisalignedAddress = 716,
                          kCuInvalidAddressSpace = 717, kCuInvalidPc = 718, kCuLaunchFailed = 719,
                          kCuTensorMemoryLeak = 721, kCuUnknown = 999;

inline constexpr int kAttrClock = 13, kAttrSms = 16, kAttrMemoryClock = 36, kAttrBusWidth = 37, kAttrL2 = 38,
                     kAttrMajor = 75, kAttrMinor = 76, kAttrSharedOptin = 97, kAttrVirtualMemory = 102;
inline constexpr int kFuncMaxDynamicShared = 8;
inline constexpr int kFuncSharedCarveout = 9;  // per cent of L1 that is shared memory, a hint
inline constexpr int kFuncNonPortableCluster = 14;
inline constexpr unsigned kStreamNonBlocking = 1, kEventDisableTiming = 2, kEventDefault = 0;
inline constexpr unsigned kHostPortable = 1, kHostDeviceMap = 2;
inline constexpr int kCaptureThreadLocal = 1;
inline constexpr int kLaunchCooperative = 2, kLaunchCluster = 4, kLaunchDependent = 6;

struct CuMemLocation {
  int type;  // 1: device
  int id;
};
struct CuMemAllocationProp {
  int type;  // 1: pinned
  int handle_types;
  CuMemLocation location;
  void* windows_metadata;
  struct {
    unsigned char compression, rdma;
    unsigned short usage;
    unsigned char reserved[4];
  } flags;
};
struct CuMemAccess {
  CuMemLocation location;
  int flags;  // 3: read and write
};
struct CuLaunchAttribute {
  int id;
  char pad[4];
  union {
    char pad64[64];
    int flag;
    struct {
      unsigned x, y, z;
    } cluster;
  } value;
};
struct CuLaunchConfig {
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  CuStream stream;
  CuLaunchAttribute* attributes;
  unsigned n_attributes;
};

// name in the table, symbol, parameters
#define STEELYARD_CUDA_FUNCTIONS(X)                                                                          \
  X(init, cuInit, (unsigned))                                                                                \
  X(driver_version, cuDriverGetVersion, (int*))                                                              \
  X(error_name, cuGetErrorName, (CuResult, const char**))                                                    \
  X(device_count, cuDeviceGetCount, (int*))                                                                  \
  X(device_get, cuDeviceGet, (CuDevice*, int))                                                               \
  X(device_name, cuDeviceGetName, (char*, int, CuDevice))                                                    \
  X(device_attribute, cuDeviceGetAttribute, (int*, int, CuDevice))                                           \
  X(device_total, cuDeviceTotalMem_v2, (std::size_t*, CuDevice))                                             \
  X(device_pci, cuDeviceGetPCIBusId, (char*, int, CuDevice))                                                 \
  X(context_retain, cuDevicePrimaryCtxRetain, (CuContext*, CuDevice))                                        \
  X(context_release, cuDevicePrimaryCtxRelease_v2, (CuDevice))                                               \
  X(context_set, cuCtxSetCurrent, (CuContext))                                                               \
  X(memory_info, cuMemGetInfo_v2, (std::size_t*, std::size_t*))                                              \
  X(address_reserve, cuMemAddressReserve, (CuPtr*, std::size_t, std::size_t, CuPtr, unsigned long long))     \
  X(address_free, cuMemAddressFree, (CuPtr, std::size_t))                                                    \
  X(memory_create, cuMemCreate, (CuMemHandle*, std::size_t, const CuMemAllocationProp*, unsigned long long)) \
  X(memory_release, cuMemRelease, (CuMemHandle))                                                             \
  X(memory_map, cuMemMap, (CuPtr, std::size_t, std::size_t, CuMemHandle, unsigned long long))                \
  X(memory_unmap, cuMemUnmap, (CuPtr, std::size_t))                                                          \
  X(memory_access, cuMemSetAccess, (CuPtr, std::size_t, const CuMemAccess*, std::size_t))                    \
  X(host_alloc, cuMemHostAlloc, (void**, std::size_t, unsigned))                                             \
  X(host_free, cuMemFreeHost, (void*))                                                                       \
  X(host_pointer, cuMemHostGetDevicePointer_v2, (CuPtr*, void*, unsigned))                                   \
  X(copy_to_device, cuMemcpyHtoDAsync_v2, (CuPtr, const void*, std::size_t, CuStream))                       \
  X(copy_to_host, cuMemcpyDtoHAsync_v2, (void*, CuPtr, std::size_t, CuStream))                               \
  X(copy_on_device, cuMemcpyDtoDAsync_v2, (CuPtr, CuPtr, std::size_t, CuStream))                             \
  X(set8, cuMemsetD8Async, (CuPtr, unsigned char, std::size_t, CuStream))                                    \
  X(set32, cuMemsetD32Async, (CuPtr, unsigned, std::size_t, CuStream))                                       \
  X(stream_create, cuStreamCreate, (CuStream*, unsigned))                                                    \
  X(stream_destroy, cuStreamDestroy_v2, (CuStream))                                                          \
  X(stream_synchronize, cuStreamSynchronize, (CuStream))                                                     \
  X(stream_query, cuStreamQuery, (CuStream))                                                                 \
  X(stream_wait_event, cuStreamWaitEvent, (CuStream, CuEvent, unsigned))                                     \
  X(stream_wait_value, cuStreamWaitValue64_v2, (CuStream, CuPtr, std::uint64_t, unsigned))                   \
  X(stream_write_value, cuStreamWriteValue64_v2, (CuStream, CuPtr, std::uint64_t, unsigned))                 \
  X(event_create, cuEventCreate, (CuEvent*, unsigned))                                                       \
  X(event_destroy, cuEventDestroy_v2, (CuEvent))                                                             \
  X(event_record, cuEventRecord, (CuEvent, CuStream))                                                        \
  X(event_query, cuEventQuery, (CuEvent))                                                                    \
  X(event_synchronize, cuEventSynchronize, (CuEvent))                                                        \
  X(event_elapsed, cuEventElapsedTime, (float*, CuEvent, CuEvent))                                           \
  X(library_load, cuLibraryLoadData,                                                                         \
    (CuLibrary*, const void*, int*, void**, unsigned, int*, void**, unsigned))                               \
  X(library_unload, cuLibraryUnload, (CuLibrary))                                                            \
  X(library_kernel_count, cuLibraryGetKernelCount, (unsigned*, CuLibrary))                                   \
  X(library_kernels, cuLibraryEnumerateKernels, (CuKernel*, unsigned, CuLibrary))                            \
  X(kernel_name, cuKernelGetName, (const char**, CuKernel))                                                  \
  X(kernel_function, cuKernelGetFunction, (CuFunction*, CuKernel))                                           \
  X(kernel_set_attribute, cuKernelSetAttribute, (int, int, CuKernel, CuDevice))                              \
  X(occupancy, cuOccupancyMaxActiveBlocksPerMultiprocessor, (int*, CuFunction, int, std::size_t))            \
  X(launch, cuLaunchKernelEx, (const CuLaunchConfig*, CuFunction, void**, void**))                           \
  X(capture_begin, cuStreamBeginCapture_v2, (CuStream, int))                                                 \
  X(capture_end, cuStreamEndCapture, (CuStream, CuGraph*))                                                   \
  X(graph_instantiate, cuGraphInstantiateWithFlags, (CuGraphExec*, CuGraph, unsigned long long))             \
  X(graph_destroy, cuGraphDestroy, (CuGraph))                                                                \
  X(graph_exec_destroy, cuGraphExecDestroy, (CuGraphExec))                                                   \
  X(graph_upload, cuGraphUpload, (CuGraphExec, CuStream))                                                    \
  X(graph_launch, cuGraphLaunch, (CuGraphExec, CuStream))

struct Driver {
#define STEELYARD_CUDA_MEMBER(name, symbol, parameters) CuResult(*name) parameters = nullptr;
  STEELYARD_CUDA_FUNCTIONS(STEELYARD_CUDA_MEMBER)
#undef STEELYARD_CUDA_MEMBER
};

// libcuda.so.1, or the file that STEELYARD_CUDA_DRIVER names.
std::string driver_library();

// Opens driver_library() and fills the table. False: `why` says in one sentence what is missing. The library
// stays open for the life of the process.
bool load_driver(Driver& driver, std::string& why);

}  // namespace steelyard::cuda
