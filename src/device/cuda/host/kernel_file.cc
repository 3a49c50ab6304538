#include "device/cuda/host/kernel_file.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/output_file.h"

namespace steelyard::cuda {
namespace {

constexpr std::uint64_t kImageAlign = 64;
constexpr std::uint32_t kFormat = 1;
constexpr char kMagic[8] = {'S', 'T', 'E', 'E', 'L', 'K', 'R', 'N'};

struct Header {
  char magic[8];
  std::uint32_t format, images;
  char id[64];
  std::uint64_t bytes;
};
struct Entry {
  char name[48];
  std::uint64_t offset, bytes;
};

constexpr std::uint64_t align(std::uint64_t bytes) {
  return (bytes + kImageAlign - 1) / kImageAlign * kImageAlign;
}

[[noreturn]] void damaged(const std::filesystem::path& path, const char* what) {
  throw_error(ErrorKind::bad_input, "{} is damaged ({}): build or copy it again", path.string(), what);
}

Header read_header(const MappedFile& file, std::string_view id) {
  Header h;
  if (file.size() < sizeof h || std::memcmp(file.bytes().data(), kMagic, sizeof kMagic) != 0)
    throw_error(ErrorKind::bad_input, "{} is no file of Steelyard's kernels", file.path().string());
  std::memcpy(&h, file.bytes().data(), sizeof h);
  if (h.format != kFormat || std::string_view(h.id, sizeof h.id) != id)
    throw_error(ErrorKind::unsupported, "{} was built for another version of Steelyard",
                file.path().string());
  if (h.bytes != file.size()) damaged(file.path(), "it is cut or too long");
  if (h.images > (file.size() - sizeof h) / sizeof(Entry)) damaged(file.path(), "its directory");
  return h;
}

}  // namespace

KernelFile KernelFile::open(const std::filesystem::path& path, std::string_view id) {
  KernelFile kernels;
  kernels.file_ = MappedFile::open(path);
  const MappedFile& file = kernels.file_;
  const Header h = read_header(file, id);
  const std::uint64_t directory_end = sizeof h + h.images * sizeof(Entry);
  for (std::uint32_t i = 0; i < h.images; ++i) {
    Entry e;
    std::memcpy(&e, file.bytes().data() + sizeof h + i * sizeof e, sizeof e);
    if (!std::memchr(e.name, 0, sizeof e.name)) damaged(path, "the name of an image");
    if (e.offset < directory_end || e.offset % kImageAlign != 0 || e.bytes == 0 || e.offset > file.size() ||
        e.bytes > file.size() - e.offset)
      damaged(path, "the place of an image");
    kernels.images_.push_back({e.name, file.bytes().subspan(e.offset, e.bytes)});
  }
  return kernels;
}

void write_kernel_file(const std::filesystem::path& path, std::string_view id,
                       std::span<const KernelImage> images) {
  Header h{{}, kFormat, static_cast<std::uint32_t>(images.size()), {}, 0};
  std::memcpy(h.magic, kMagic, sizeof kMagic);
  id.copy(h.id, sizeof h.id);
  std::vector<Entry> entries;
  std::uint64_t end = sizeof h + images.size() * sizeof(Entry);
  for (const KernelImage& image : images) {
    Entry e{{}, align(end), image.data.size()};
    if (image.name.size() >= sizeof e.name)
      throw_error(ErrorKind::bad_input, "the image's name {} is too long", image.name);
    image.name.copy(e.name, image.name.size());
    entries.push_back(e);
    end = e.offset + e.bytes;
  }
  h.bytes = end;
  OutputFile out(path);
  out.write(&h, sizeof h);
  out.write(entries.data(), entries.size() * sizeof(Entry));
  std::uint64_t at = sizeof h + entries.size() * sizeof(Entry);
  for (std::size_t i = 0; i < images.size(); ++i) {
    const char zeros[kImageAlign] = {};
    out.write(zeros, entries[i].offset - at);
    out.write(images[i].data.data(), images[i].data.size());
    at = entries[i].offset + entries[i].bytes;
  }
  out.finish();
}

}  // namespace steelyard::cuda
