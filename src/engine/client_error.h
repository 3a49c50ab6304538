// A load's error as those may see it who only asked for a model.
#pragma once

#include <exception>
#include <filesystem>

namespace steelyard {

// The file's faults aren't the request's: they become Error(io), and no sentence names the file's directory.
// TooLong stays as it is; std::bad_alloc becomes Error(busy), any other exception Error(internal).
std::exception_ptr error_for_clients(std::exception_ptr error, const std::filesystem::path& path);

}  // namespace steelyard
