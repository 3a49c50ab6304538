#include "store/store_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/units.h"
#include "store/ollama.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

constexpr auto kLockPause = std::chrono::milliseconds(20);
constexpr std::uint64_t kSpare = 64 << 20;  // of a disk, that is left alone

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw_error(ErrorKind::io, "{} can't be made: {}", folder.string(), error.message());
}

fs::path fresh_place(const fs::path& folder) {
  static std::atomic<unsigned> number{0};
  return folder / "blobs" / fmt::format(".new-{}-{}", ::getpid(), ++number);
}

void rename_file(const fs::path& from, const fs::path& to) {
  std::error_code error, ignored;
  fs::rename(from, to, error);
  if (!error) return;
  fs::remove(from, ignored);
  throw_error(ErrorKind::io, "{} can't be written: {}", to.string(), error.message());
}

// Empty folders from `folder` up to, and without, `top`.
void prune(fs::path folder, const fs::path& top) {
  std::error_code error;
  while (folder != top && folder.string().size() > top.string().size() && fs::remove(folder, error) && !error)
    folder = folder.parent_path();
}

}  // namespace

FileLock::FileLock(const fs::path& file, const std::stop_token& stop) {
  fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  int result = fd_ < 0 ? -1 : 0;
  while (result == 0 && ::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK && !stop.stop_requested())
      std::this_thread::sleep_for(kLockPause);
    else if (errno != EINTR)
      result = -1;
  }
  if (result == 0) return;
  if (stop.stop_requested()) {
    ::close(fd_);
    throw Error(ErrorKind::cancelled, "it was cancelled while another program was at it");
  }
  const int error = errno;
  if (fd_ >= 0) ::close(fd_);
  throw_error(ErrorKind::io, "{} can't be locked: {}", file.string(), std::strerror(error));
}

FileLock::~FileLock() { ::close(fd_); }

fs::path StoreFolder::blob_path(std::string_view digest) const {
  return folder_ / "blobs" / blob_file_name(digest);
}

bool StoreFolder::has_blob(std::string_view digest) const {
  std::error_code ignored;
  return fs::is_regular_file(blob_path(digest), ignored);
}

void StoreFolder::make() const {
  make_folder(folder_ / "blobs");
  make_folder(folder_ / "manifests");
}

void StoreFolder::check_room(std::uint64_t bytes) const {
  std::error_code error;
  const auto space = fs::space(folder_, error);
  if (error || space.available >= bytes + kSpare) return;
  throw_error(ErrorKind::io, "the model takes {} more, and {} has {} left: make room or use another folder",
              size_text(bytes, Rounding::up), folder_.string(), size_text(space.available, Rounding::down));
}

Layer StoreFolder::add_blob(std::string_view kind, std::string_view content) const {
  make();
  const std::string digest = "sha256:" + sha256_hex(content);
  if (!has_blob(digest)) {
    BlobWriter writer(*this);
    writer.write(std::as_bytes(std::span(content)));
    writer.finish(digest);
  }
  return {layer_media_type(kind), digest, content.size()};
}

void StoreFolder::write_manifest(const ModelName& name, std::string_view text) const {
  make();
  const FileLock lock(lock_file());
  const Manifest manifest = parse_manifest(text, name.text(), blobs_of(folder_));
  std::vector<std::string> needed;
  if (!manifest.config.digest.empty()) needed.push_back(manifest.config.digest);
  for (const Layer& l : manifest.layers) needed.push_back(l.digest);
  for (const std::string& digest : needed)
    if (!has_blob(digest))
      throw_error(ErrorKind::not_found, "there is no blob {} any more, of which {} is made", digest,
                  name.text());
  write_locked(name, text);
}

void StoreFolder::write_locked(const ModelName& name, std::string_view text) const {
  const fs::path place = folder_ / "manifests" / name.path();
  make_folder(place.parent_path());
  const fs::path fresh = fresh_place(folder_);
  write_file(fresh, text);
  rename_file(fresh, place);
  std::error_code ignored;  // the newer form would count instead
  fs::remove(folder_ / "manifests-v2" / name.path(), ignored);
}

fs::path StoreFolder::find_manifest(const ModelName& name) const {
  for (const NamedManifest& named : named_manifests(folder_))
    if (named.name == name) return named.path;
  throw_error(ErrorKind::not_found, "there is no model '{}'", name.text());
}

void StoreFolder::copy(const ModelName& from, const ModelName& to) const {
  const FileLock lock(lock_file());
  const std::string text = read_small(find_manifest(from));
  if (text.empty()) throw_error(ErrorKind::io, "the manifest of {} can't be read", from.text());
  write_locked(to, text);
}

void StoreFolder::remove(const ModelName& name) const {
  const FileLock lock(lock_file());
  const fs::path path = find_manifest(name);
  const std::string text = read_small(path);
  std::vector<std::string> blobs;
  try {
    blobs = parse_manifest(text, name.text(), blobs_of(folder_)).digests();
  } catch (const Error&) {  // then nobody knows which they are
  }
  blobs.push_back("sha256:" + sha256_hex(text));  // the newer form's
  for (const char* kind : {"manifests-v2", "manifests"}) {
    std::error_code error;
    const fs::path place = folder_ / kind / name.path();
    fs::remove(place, error);
    if (error) throw_error(ErrorKind::io, "{} can't be removed: {}", name.text(), error.message());
    prune(place.parent_path(), folder_ / kind);
  }
  remove_blobs(blobs);
}

void StoreFolder::remove_blobs(const std::vector<std::string>& candidates) const {
  std::set<std::string> used;
  for (const NamedManifest& named : named_manifests(folder_)) {
    const std::string text = read_small(named.path);
    used.insert("sha256:" + sha256_hex(text));
    try {
      const Manifest manifest = parse_manifest(text, named.name.text(), blobs_of(folder_));
      for (std::string& digest : manifest.digests()) used.insert(std::move(digest));
    } catch (const Error&) {
      return;
    }
  }
  std::error_code ignored;
  for (const std::string& digest : candidates)
    if (!used.contains(digest)) fs::remove(blob_path(digest), ignored);
}

BlobWriter::BlobWriter(const StoreFolder& folder)
    : folder_(folder), place_(fresh_place(folder.path())), file_(place_) {}

void BlobWriter::write(std::span<const std::byte> bytes) {
  file_.write(bytes.data(), bytes.size());
  hash_.update(bytes);
  bytes_ += bytes.size();
}

std::string BlobWriter::finish(std::string_view expected) {
  std::string digest = "sha256:" + hash_.hex();
  if (!expected.empty() && digest != expected)
    throw_error(ErrorKind::bad_input, "the content's SHA-256 is {}, not {}", digest, expected);
  file_.finish();
  rename_file(place_, folder_.blob_path(digest));
  return digest;
}

}  // namespace steelyard
