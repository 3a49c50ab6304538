#include "engine/client_error.h"

#include <new>
#include <string>

#include "base/error.h"
#include "engine/errors.h"

namespace steelyard {
namespace {

// Where files lie is nobody's business who talks to a server.
std::string without_directory(std::string text, const std::filesystem::path& path) {
  const std::string directory = path.parent_path().string() + "/";
  if (directory.size() < 2) return text;
  for (std::size_t at = text.find(directory); at != std::string::npos; at = text.find(directory, at))
    text.erase(at, directory.size());
  return text;
}

}  // namespace

std::exception_ptr error_for_clients(std::exception_ptr error, const std::filesystem::path& path) {
  try {
    std::rethrow_exception(error);
  } catch (const TooLong&) {
    return error;
  } catch (const Error& e) {
    const bool file = e.kind() == ErrorKind::bad_input || e.kind() == ErrorKind::not_found;
    return std::make_exception_ptr(Error(file ? ErrorKind::io : e.kind(), without_directory(e.what(), path)));
  } catch (const std::bad_alloc&) {
    return std::make_exception_ptr(
        Error(ErrorKind::busy, "there isn't enough memory to load the model now: try again later"));
  } catch (const std::exception& e) {
    return std::make_exception_ptr(Error(ErrorKind::internal, without_directory(e.what(), path)));
  }
}

}  // namespace steelyard
