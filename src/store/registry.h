// Where models come from: registries that speak Docker's protocol (version 2) as Ollama's does, and Hugging
// Face's own interface.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "store/manifest.h"
#include "store/model_name.h"
#include "store/store_folder.h"
#include "store/web_client.h"

namespace steelyard {

// A model as a server offers it.
struct RemoteModel {
  std::string manifest;  // what is to be written under its name
  // Small blobs that came with it, by their types: a list's manifests, a config that was made here.
  struct Small {
    std::string kind, content;
  };
  std::vector<Small> smalls;
  // What is to be fetched, each once; those of `smalls` aren't among them.
  struct Blob {
    Layer layer;
    WebRequest source;
  };
  std::vector<Blob> blobs;
};

// `insecure`: plain http, also where the name doesn't say so; this machine's own registries are asked by http
// in any case. Throws Error: not_found, io, bad_input (what came can't be used), unsupported (a login,
// parts).
RemoteModel find_in_registry(WebClient& client, const ModelName& name, bool insecure);

// By $HF_ENDPOINT, else https://huggingface.co; with the token of $HF_TOKEN or of the file that `hf auth
// login` writes. The tag is a type ("Q4_K_M") or a file's name; without one the usual choice.
RemoteModel find_on_hugging_face(WebClient& client, const ModelName& name);

// One of the files on Hugging Face for a tag; empty: none. Names that `mmproj` and split models have are
// never chosen.
std::string choose_gguf(const std::vector<std::string>& files, std::string_view tag);

// "Bearer realm="…",service="…",scope="…"" → the address that gives a token. Throws Error(unsupported) for
// another way to log in, or an address that isn't the registry's own (`origin`).
std::string token_address(const std::string& challenge, const std::string& origin);

}  // namespace steelyard
