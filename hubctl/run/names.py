"""What the runner has, by name: known without importing torch."""

from __future__ import annotations

AVAILABLE_SCHEDULES = frozenset(
    {
        "uniform", "karras", "exponential", "polyexponential", "normal", "sgm_uniform", "simple", "ddim",
        "ddim_uniform", "beta", "kl_optimal", "align_your_steps", "align_your_steps_gits", "align_your_steps_11",
        "align_your_steps_32", "turbo", "linear_quadratic",
    }
)  # fmt: skip

# Schedule of "Automatic", where it is not uniform and was part of the name before 1.9
AUTOMATIC: dict[str, str] = {
    "dpm_2": "karras",
    "dpm_2_ancestral": "karras",
    "dpmpp_2s_ancestral": "karras",
    "dpmpp_2m": "karras",
    "dpmpp_sde": "karras",
    "dpmpp_2m_sde": "exponential",
    "dpmpp_2m_sde_heun": "exponential",
    "dpmpp_3m_sde": "exponential",
}

# Samplers whose noise comes from a Brownian tree
BROWNIAN = frozenset({"dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"})

# A sampler we do not have → the nearest one we do
UNSUPPORTED: dict[str, str] = {
    "tcd": "lcm",
    "er_sde": "dpmpp_3m_sde",
    "seeds_2": "dpmpp_sde",
    "seeds_3": "dpmpp_3m_sde",
    "sa_solver": "dpmpp_3m_sde",
    "sa_solver_pece": "dpmpp_3m_sde",
    "exp_heun_2_x0": "heun",
    "exp_heun_2_x0_sde": "dpmpp_sde",
}

LATENT_UPSCALERS: dict[str, tuple[str, bool]] = {
    "Latent": ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
}
UPSCALERS = frozenset({*LATENT_UPSCALERS, "None", "Lanczos", "Nearest"})

# Upscalers that a WebUI shows under another name than their file's
UPSCALER_FILES: dict[str, str] = {
    "R-ESRGAN 4x+": "RealESRGAN_x4plus",
    "R-ESRGAN 4x+ Anime6B": "RealESRGAN_x4plus_anime_6B",
    "R-ESRGAN 2x+": "RealESRGAN_x2plus",
    "R-ESRGAN General 4xV3": "realesr-general-x4v3",
    "R-ESRGAN General WDN 4xV3": "realesr-general-wdn-x4v3",
    "R-ESRGAN AnimeVideo": "realesr-animevideov3",
    "DAT x2": "DAT_x2",
    "DAT x3": "DAT_x3",
    "DAT x4": "DAT_x4",
    "ScuNET": "ScuNET",
    "ScuNET PSNR": "ScuNET-PSNR",
}
