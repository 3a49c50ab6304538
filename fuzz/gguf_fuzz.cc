// ROOMS: gguf quant base
// Any bytes as a GGUF file: parse is a file or an Error, and a file answers every question about itself.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "base/error.h"
#include "gguf/gguf.h"
#include "gguf/summary.h"
#include "quant/quant.h"

namespace {

using namespace strata;

// Errors are answers; anything else stops the run.
template <typename Ask>
void ask(const Ask& question) {
  try {
    question();
  } catch (const Error&) {
  }
}

// One way of reading each entry, chosen by its place: throwing is slow, and inputs are many.
void touch_metadata(const GgufMetadata& metadata) {
  std::size_t way = metadata.entries().size();
  for (const GgufEntry& entry : metadata.entries()) {
    const auto key = entry.key();
    if (metadata.find(key) != &entry || entry.printable(30).size() > 90) std::abort();
    const bool array = entry.type() == GgufType::array;
    ask([&] {
      switch (way++ % 6) {
        case 0:
          array ? void(metadata.require_array(key).strings()) : void(metadata.find_uint(key, 1000));
          break;
        case 1:
          array ? void(metadata.require_array(key).ints()) : void(metadata.find_int(key, -5, 5));
          break;
        case 2:
          array ? void(metadata.require_array(key).floats()) : void(metadata.find_float(key));
          break;
        case 3:
          array ? void(metadata.require_array(key).bool_at(2)) : void(metadata.find_bool(key));
          break;
        case 4:
          array ? void(metadata.require_array(key).string_at(1)) : void(metadata.find_string(key));
          break;
        default:
          void(metadata.require_array(key).uint_at(0));
      }
    });
  }
}

void touch_tensors(const GgufFile& file) {
  std::vector<float> row;
  for (const GgufTensor& tensor : file.tensors()) {
    if (file.find_tensor(tensor.name) != &tensor) std::abort();
    const std::span<const std::byte> data = file.data(tensor);
    if (data.size() != row_bytes(tensor.type, tensor.shape.elements())) std::abort();
    const std::uint64_t block = dtype_info(tensor.type).block;
    const std::uint64_t n = std::min<std::uint64_t>(tensor.shape.elements(), 4 * block) / block * block;
    row.resize(n);
    const std::size_t last = data.size() - row_bytes(tensor.type, n);
    dequantize(tensor.type, data.data(), n, row.data());
    dequantize(tensor.type, data.data() + last, n, row.data());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ask([&] {
    const GgufFile file = GgufFile::parse({reinterpret_cast<const std::byte*>(data), size});
    touch_metadata(file.metadata());
    touch_tensors(file);
    if (parameter_count(file) > 0 && quantization_name(file).empty()) std::abort();
  });
  return 0;
}
