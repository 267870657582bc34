// The layout of an array that travels by DLPack (dmlc.github.io/dlpack), as far as it is read here.
#pragma once
#include <cstdint>

namespace fusedrnn::cuda {

struct DLDevice {
  enum : int32_t { cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13 };
  int32_t type, id;
};

struct DLDataType {
  enum : uint8_t { float_code = 2, bfloat_code = 4 };
  uint8_t code, bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape, *strides;  // strides in elements; null: C order
  uint64_t byte_offset;
};

struct DLManagedTensor {
  DLTensor tensor;
  void* context;
  void (*deleter)(DLManagedTensor*);
};

struct DLManagedTensorVersioned {
  static constexpr uint64_t read_only_flag = 1;
  uint32_t major, minor;
  void* context;
  void (*deleter)(DLManagedTensorVersioned*);
  uint64_t flags;
  DLTensor tensor;
};

}  // namespace fusedrnn::cuda
