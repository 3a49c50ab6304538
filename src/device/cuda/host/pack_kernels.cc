// Packs images into a file of kernels, when Steelyard is built: pack_kernels OUT NAME=FILE...
#include <cstdio>
#include <vector>

#include "base/error.h"
#include "device/cuda/host/kernel_file.h"

int main(int n, char** arguments) {
  using namespace steelyard;
  try {
    std::vector<MappedFile> files;
    std::vector<cuda::KernelImage> images;
    for (int i = 2; i < n; ++i) {
      const std::string_view argument = arguments[i];
      const auto equals = argument.find('=');
      if (equals == argument.npos) throw_error(ErrorKind::bad_input, "'{}' isn't NAME=FILE", argument);
      files.push_back(MappedFile::open(argument.substr(equals + 1)));
      images.push_back({std::string(argument.substr(0, equals)), files.back().bytes()});
    }
    if (images.empty()) throw_error(ErrorKind::bad_input, "usage: pack_kernels OUT NAME=FILE...");
    cuda::write_kernel_file(arguments[1], cuda::kernels_id(), images);
  } catch (const Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
}
