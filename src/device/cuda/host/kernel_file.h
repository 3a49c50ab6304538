// The kernels as data: one file beside the program with everything that nvcc made, an image (fatbin) a source
// file. The program itself holds no machine code of a GPU, so that it builds and runs without CUDA.
//
//   header     magic "STEELKRN" | u32 format | u32 images | id, 64 hexadecimal digits | u64 bytes of the file
//   directory  an entry an image: name, 48 bytes, ends in 0 | u64 offset | u64 bytes
//   images     each at a multiple of 64
//
// Integers little-endian. The id is a hash of the sources that host and kernels share: a file of other
// sources isn't used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"

namespace steelyard::cuda {

struct KernelImage {
  std::string name;  // "hopper/gemv/gemv_sm90a"
  std::span<const std::byte> data;
};

// The id of this build (made by kernels_id.cmake).
std::string_view kernels_id();

class KernelFile {
 public:
  // Throws Error with one line: not_found; unsupported when the id is another's; bad_input when it is no such
  // file or is damaged: every offset is checked.
  static KernelFile open(const std::filesystem::path& path, std::string_view id);
  // Views into the file's mapping: valid as long as this, moved or not.
  std::span<const KernelImage> images() const { return images_; }

 private:
  MappedFile file_;
  std::vector<KernelImage> images_;
};

// Replaces the file as a whole. Throws Error: bad_input for an image's name that is too long, io.
void write_kernel_file(const std::filesystem::path& path, std::string_view id,
                       std::span<const KernelImage> images);

}  // namespace steelyard::cuda
