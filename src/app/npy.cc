#include "app/npy.h"

#include <bit>
#include <regex>
#include <string>

#include "base/error.h"

namespace steelyard {
namespace {

static_assert(std::endian::native == std::endian::little);
constexpr std::string_view kMagic{"\x93NUMPY\x01\x00", 8};

}  // namespace

NpyWriter::NpyWriter(std::filesystem::path path, std::uint64_t rows, std::uint64_t columns)
    : file_(std::move(path)), values_left_(rows * columns) {
  std::string header =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, columns);
  const std::size_t before = kMagic.size() + 2;  // the header's length follows the magic
  header.append(63 - (before + header.size()) % 64, ' ');
  header += '\n';
  const auto length = static_cast<std::uint16_t>(header.size());
  file_.write(kMagic.data(), kMagic.size());
  file_.write(&length, 2);
  file_.write(header.data(), header.size());
}

void NpyWriter::append(std::span<const float> values) {
  if (values.size() > values_left_)
    throw_error(ErrorKind::internal, "more rows for {} than were declared", file_.path().string());
  file_.write(values.data(), values.size_bytes());
  values_left_ -= values.size();
}

void NpyWriter::finish() {
  if (values_left_ > 0) throw_error(ErrorKind::internal, "rows are missing from {}", file_.path().string());
  file_.finish();
}

NpyFile NpyFile::open(const std::filesystem::path& path) {
  NpyFile f;
  f.file_ = MappedFile::open(path);
  const auto bytes = f.file_.bytes();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!text.starts_with(kMagic) || text.size() < 10)
    throw_error(ErrorKind::bad_input, "{} is no .npy file of format 1.0", path.string());
  const std::size_t length = static_cast<unsigned char>(text[8]) + 256u * static_cast<unsigned char>(text[9]);
  const std::string header(text.substr(10, length));
  static const std::regex kFloatMatrix(
      R"(\{(?=.*'descr': '<f4')(?=.*'fortran_order': False).*'shape': \((\d{1,12}), ?(\d{1,12})\).*\}\s*)");
  std::smatch match;
  if (!std::regex_match(header, match, kFloatMatrix))
    throw_error(ErrorKind::bad_input, "{} holds no two-dimensional float32 array in C order", path.string());
  f.rows_ = std::stoull(match[1]);
  f.columns_ = std::stoull(match[2]);
  const std::size_t start = 10 + length;
  if (start % alignof(float) != 0 || static_cast<double>(f.rows_) * static_cast<double>(f.columns_) > 1e15 ||
      text.size() != start + f.rows_ * f.columns_ * sizeof(float))
    throw_error(ErrorKind::bad_input, "{} is cut off or too long for its shape of {} x {}", path.string(),
                f.rows_, f.columns_);
  f.values_ = reinterpret_cast<const float*>(bytes.data() + start);
  return f;
}

}  // namespace steelyard
