#include "store/download.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <fstream>
#include <mutex>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/sha256.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr std::uint64_t kLeastPart = 256 << 10, kMostPart = 64 << 20, kStep = 64 << 10;
constexpr int kMostAttempts = 6;  // without a byte
constexpr milliseconds kFirstPause{200}, kLongestPause{10'000}, kMostPatience{120'000};
constexpr long kStallSeconds = 30;

[[noreturn]] void cancelled() {
  throw Error(ErrorKind::cancelled, "the download was cancelled; it can be taken up again");
}

// The file that is being filled, and notes of the parts that are whole.
class PartialFile {
 public:
  PartialFile(const StoreFolder& folder, const BlobDownload& what, const std::stop_token& stop)
      : blob_(folder.blob_path(what.digest)),
        path_(blob_.string() + "-partial"),
        notes_(blob_.string() + "-partial-parts"),
        lock_(path_, stop),
        bytes_(what.bytes),
        part_bytes_(part_bytes(what.bytes)) {}
  ~PartialFile() {
    if (fd_ >= 0) ::close(fd_);
  }

  void open() {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd_ < 0 || ::ftruncate(fd_, static_cast<off_t>(bytes_)) != 0) fail(errno);
  }
  std::size_t parts() const { return static_cast<std::size_t>((bytes_ + part_bytes_ - 1) / part_bytes_); }
  std::uint64_t begin(std::size_t part) const { return part * part_bytes_; }
  std::uint64_t size(std::size_t part) const { return std::min(part_bytes_, bytes_ - begin(part)); }

  void write(std::uint64_t at, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail(n < 0 ? errno : ENOSPC);
      at += static_cast<std::uint64_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }
  std::string hash(std::uint64_t at, std::uint64_t size, const std::stop_token& stop) {
    Sha256 hash;
    std::vector<std::byte> buffer(1 << 20);
    while (size > 0) {
      if (stop.stop_requested()) cancelled();
      const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(size, buffer.size()));
      const ssize_t n = ::pread(fd_, buffer.data(), want, static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail(n < 0 ? errno : EIO);
      hash.update(std::span(buffer).first(static_cast<std::size_t>(n)));
      at += static_cast<std::uint64_t>(n);
      size -= static_cast<std::uint64_t>(n);
    }
    return hash.hex();
  }

  // From any thread.
  void note(std::size_t part, const std::string& hash) {
    const std::lock_guard lock(mutex_);
    std::ofstream notes(notes_, std::ios::app);
    notes << part << ' ' << part_bytes_ << ' ' << hash << '\n';
  }
  // Which parts are there, as their notes say and their bytes still are.
  std::vector<bool> verified(const std::stop_token& stop) {
    std::vector<bool> done(parts());
    std::ifstream notes(notes_);
    for (std::string line; std::getline(notes, line);) {
      std::istringstream words(line);
      std::size_t part = 0;
      std::uint64_t part_bytes = 0;
      std::string noted;
      if (!(words >> part >> part_bytes >> noted) || part >= parts() || part_bytes != part_bytes_) continue;
      if (!done[part]) done[part] = hash(begin(part), size(part), stop) == noted;
    }
    return done;
  }
  // What is there is worthless.
  void forget() {
    std::error_code ignored;
    fs::remove(notes_, ignored);
    if (fd_ >= 0 && ::ftruncate(fd_, 0) != 0) fail(errno);
  }
  void finish() {
    if (::fdatasync(fd_) != 0) fail(errno);
    std::error_code error, ignored;
    fs::rename(path_, blob_, error);
    if (error) throw_error(ErrorKind::io, "{} can't be written: {}", blob_.string(), error.message());
    fs::remove(notes_, ignored);
  }
  void discard_empty() {
    std::error_code ignored;
    if (fs::file_size(path_, ignored) == 0) fs::remove(path_, ignored);
  }

 private:
  static std::uint64_t part_bytes(std::uint64_t bytes) {
    return std::clamp((bytes / 16 + kStep - 1) / kStep * kStep, kLeastPart, kMostPart);
  }
  [[noreturn]] void fail(int error) const {
    throw_error(ErrorKind::io, "{} can't be written: {}", path_.string(), std::strerror(error));
  }

  const fs::path blob_, path_, notes_;
  const FileLock lock_;
  const std::uint64_t bytes_, part_bytes_;
  int fd_ = -1;
  std::mutex mutex_;
};

// Why a server's answer is of no use, for ever.
void check_for_good(const WebResponse& r, const BlobDownload& what) {
  const std::string& url = what.source.url;
  if (r.status == 404 || r.status == 410)
    throw_error(ErrorKind::not_found, "there is nothing at {} (HTTP {})", url, r.status);
  if (r.status == 401 || r.status == 403)
    throw_error(ErrorKind::io, "the server doesn't let us read {} (HTTP {})", url, r.status);
  if (r.status == 416)
    throw_error(ErrorKind::io, "the server's file at {} is smaller than the {} bytes that it should have",
                url, what.bytes);
  const auto total = r.total();
  if ((r.status == 200 || r.status == 206) && total && *total != what.bytes)
    throw_error(ErrorKind::io, "the server's file at {} has {} bytes, not the {} that it should have", url,
                *total, what.bytes);
}

bool worth_another_try(const WebResponse& r) {
  return r.status == 0 || r.status == 200 || r.status == 206 || r.status == 408 || r.status == 429 ||
         r.status >= 500;
}

// Counts attempts that brought nothing, and waits before the next one.
class Retries {
 public:
  Retries(const BlobDownload& what, std::stop_token stop) : what_(what), stop_(std::move(stop)) {}
  void failed(const WebResponse& r, bool some) {
    if (stop_.stop_requested()) cancelled();
    check_for_good(r, what_);
    if (some) attempt_ = 0;
    const auto wait = retry_pause(r, attempt_);
    if (!worth_another_try(r) || ++attempt_ >= kMostAttempts || !wait)
      throw_error(ErrorKind::io, "{} can't be fetched: {}", what_.source.url,
                  !r.failure.empty()                   ? r.failure
                  : r.status == 200 || r.status == 206 ? "the server sends less than it says"
                                                       : fmt::format("HTTP {}", r.status));
    pause(*wait, stop_);
  }

 private:
  const BlobDownload& what_;
  const std::stop_token stop_;
  int attempt_ = 0;
};

class Download {
 public:
  Download(PartialFile& file, const BlobDownload& what, std::stop_token stop)
      : file_(file),
        what_(what),
        outer_(std::move(stop)),
        pass_on_(outer_, [this] { stop_.request_stop(); }) {}

  void run(const OnBytes& progress) {
    std::vector<bool> there = file_.verified(outer_);
    for (std::size_t part = 0; part < there.size(); ++part) {
      if (there[part])
        done_ += file_.size(part);
      else
        missing_.push_back(part);
    }
    in_parts(progress);
    if (error_ && !whole_only_) std::rethrow_exception(error_);
    if (whole_only_) at_once(progress);
    if (outer_.stop_requested()) cancelled();
  }

 private:
  void in_parts(const OnBytes& progress) {
    const auto n = std::min<std::size_t>(std::max(1u, what_.connections), missing_.size());
    running_ = n;
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < n; ++i) threads.emplace_back([this] { work(); });
    watch(progress);
  }
  // Until all threads are done.
  void watch(const OnBytes& progress) {
    std::unique_lock lock(mutex_);
    while (running_ > 0) {
      ended_.wait_for(lock, milliseconds(100));
      lock.unlock();
      if (progress) progress(done_);
      lock.lock();
    }
  }
  void work() {
    try {
      WebClient client(stop_.get_token(), kStallSeconds);
      for (std::size_t part; take(part);) fetch(client, part);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      stop_.request_stop();
    }
    const std::lock_guard lock(mutex_);
    --running_;
    ended_.notify_all();
  }
  bool take(std::size_t& part) {
    const std::lock_guard lock(mutex_);
    if (next_ == missing_.size() || stop_.stop_requested()) return false;
    part = missing_[next_++];
    return true;
  }

  void fetch(WebClient& client, std::size_t part) {
    const std::uint64_t begin = file_.begin(part), size = file_.size(part);
    std::uint64_t got = 0;
    Sha256 hash;
    Retries retries(what_, stop_.get_token());
    while (got < size) {
      WebRequest request = what_.source;
      request.headers.push_back(fmt::format("Range: bytes={}-{}", begin + got, begin + size - 1));
      const std::uint64_t before = got;
      std::exception_ptr disk;
      const WebResponse r =
          client.get(request, [&](const WebResponse& head, std::span<const std::byte> piece) {
            if (head.status != 206 || head.range_begin() != begin + before) return false;
            if (head.total().value_or(what_.bytes) != what_.bytes) return false;
            const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), size - got));
            try {
              file_.write(begin + got, piece.first(n));
            } catch (...) {
              disk = std::current_exception();
              return false;
            }
            hash.update(piece.first(n));
            got += n;
            done_ += n;
            return got < size;
          });
      if (disk) std::rethrow_exception(disk);
      if (got == size) break;
      if (r.status == 200 && r.total().value_or(what_.bytes) == what_.bytes) return no_ranges();
      retries.failed(r, got > before);
    }
    file_.note(part, hash.hex());
  }
  void no_ranges() {
    whole_only_ = true;
    stop_.request_stop();
  }

  // From a server that knows no ranges.
  void at_once(const OnBytes& progress) {
    WebClient client(outer_, kStallSeconds);
    Retries retries(what_, outer_);
    auto told = std::chrono::steady_clock::now();
    for (;;) {
      done_ = 0;
      std::exception_ptr disk;
      const WebResponse r =
          client.get(what_.source, [&](const WebResponse& head, std::span<const std::byte> piece) {
            if (head.status != 200 || done_ + piece.size() > what_.bytes) return false;
            try {
              file_.write(done_, piece);
            } catch (...) {
              disk = std::current_exception();
              return false;
            }
            done_ += piece.size();
            if (progress && std::chrono::steady_clock::now() - told > milliseconds(100)) {
              progress(done_);
              told = std::chrono::steady_clock::now();
            }
            return true;
          });
      if (disk) std::rethrow_exception(disk);
      if (r.status == 200 && r.failure.empty() && done_ == what_.bytes) return;
      retries.failed(r, false);
    }
  }

  PartialFile& file_;
  const BlobDownload& what_;
  const std::stop_token outer_;
  std::stop_source stop_;  // of the threads
  const std::stop_callback<std::function<void()>> pass_on_;
  std::atomic<std::uint64_t> done_{0};
  std::atomic<bool> whole_only_{false};
  std::mutex mutex_;
  std::condition_variable ended_;
  std::vector<std::size_t> missing_;
  std::size_t next_ = 0, running_ = 0;
  std::exception_ptr error_;
};

}  // namespace

void pause(milliseconds time, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, stop, time, [] { return false; });
  if (stop.stop_requested()) cancelled();
}

std::optional<milliseconds> retry_pause(const WebResponse& response, int attempt) {
  const milliseconds usual = std::min(kFirstPause * (1 << std::min(attempt, 10)), kLongestPause);
  const std::string asked = response.header("retry-after");
  if ((response.status != 429 && response.status != 503) || asked.empty()) return usual;
  unsigned seconds = 0;
  const auto [end, error] = std::from_chars(asked.data(), asked.data() + asked.size(), seconds);
  if (error == std::errc::invalid_argument || end != asked.data() + asked.size())
    return kLongestPause;  // a date
  if (error != std::errc() || std::chrono::seconds(seconds) > kMostPatience) return std::nullopt;
  return std::max<milliseconds>(usual, std::chrono::seconds(seconds));
}

std::uint64_t downloaded_before(const StoreFolder& folder, const std::string& digest) {
  struct stat status {};
  if (::stat((folder.blob_path(digest).string() + "-partial").c_str(), &status) != 0) return 0;
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

void download_blob(const StoreFolder& folder, const BlobDownload& what, const OnBytes& progress,
                   const std::function<void()>& verifying, std::stop_token stop) {
  if (folder.has_blob(what.digest)) return;
  folder.make();
  PartialFile file(folder, what, stop);
  if (folder.has_blob(what.digest)) return file.discard_empty();  // another one was here first
  file.open();
  if (what.bytes > 0) Download(file, what, stop).run(progress);
  if (progress) progress(what.bytes);
  if (verifying) verifying();
  const std::string digest = "sha256:" + file.hash(0, what.bytes, stop);
  if (digest != what.digest) {
    file.forget();
    throw_error(ErrorKind::bad_input,
                "what {} sent isn't what it should be: its SHA-256 is {}, not {}; it was thrown away",
                what.source.url, digest, what.digest);
  }
  file.finish();
}

}  // namespace steelyard
