// Blobs that clients send: too large to be held in memory, so connections hand them on in pieces.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "api/answers.h"
#include "store/store.h"
#include "store/store_folder.h"

namespace steelyard::api {

// POST /api/blobs/…
bool is_blob_upload(std::string_view method, std::string_view target);

// Sets `digest`, by the target, and `writer`, unless the blob is there already: then the reply is the answer.
// `bytes`: how many will come, where that is known. Throws Error: bad_input for a digest that is none, io
// when the disk has no room.
Reply begin_blob(const ModelStore& store, std::string_view target, std::optional<std::uint64_t> bytes,
                 std::unique_ptr<BlobWriter>& writer, std::string& digest);

}  // namespace steelyard::api
