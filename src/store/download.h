// A blob fetched from the web in parallel parts, and taken up again where it was left.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>

#include "store/store_folder.h"
#include "store/web_client.h"

namespace steelyard {

struct BlobDownload {
  WebRequest source;   // without a range
  std::string digest;  // what its SHA-256 must be
  std::uint64_t bytes = 0;
  unsigned connections = 8;
};

// Called by the thread that waits, a few times a second.
using OnBytes = std::function<void(std::uint64_t done)>;

// Returns when the blob is in the folder. Parts that were fetched before, also by another program, are hashed
// again and kept when they are what they were; one program at a time fetches a blob, others wait for it.
// Broken connections, 429 and 5xx are tried again, with the pause that the server asks for; a server that
// knows no ranges sends all of it at once. `verifying` is called before the whole is hashed. Throws Error:
// not_found, io (what the server did or the disk said), bad_input when the bytes aren't those of the digest,
// cancelled.
void download_blob(const StoreFolder& folder, const BlobDownload& what, const OnBytes& progress,
                   const std::function<void()>& verifying, std::stop_token stop);

// Bytes of it that an earlier attempt left on the disk.
std::uint64_t downloaded_before(const StoreFolder& folder, const std::string& digest);

// How long to wait before trying again for the `attempt`th time (from 0), by the server's Retry-After where
// it has one. Nothing: longer than anybody would wait.
std::optional<std::chrono::milliseconds> retry_pause(const WebResponse& response, int attempt);
// Sleeps; throws Error(cancelled) when asked to stop.
void pause(std::chrono::milliseconds time, const std::stop_token& stop);

}  // namespace steelyard
