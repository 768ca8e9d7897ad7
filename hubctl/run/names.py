"""What the runner has, by name: known without importing torch."""

from __future__ import annotations

AVAILABLE_SCHEDULES = frozenset(
    {
        "uniform", "karras", "exponential", "polyexponential", "normal", "sgm_uniform", "simple", "ddim",
        "ddim_uniform", "beta", "kl_optimal", "align_your_steps", "align_your_steps_gits", "turbo",
    }
)  # fmt: skip

# A sampler we do not have → the nearest one we do
UNSUPPORTED: dict[str, str] = {
    "uni_pc_bh2": "uni_pc",
    "tcd": "lcm",
    "ddpm": "euler_ancestral",
    "deis": "ipndm",
    "ipndm_v": "ipndm",
    "euler_cfg_pp": "euler",
    "euler_ancestral_cfg_pp": "euler_ancestral",
    "dpmpp_2s_ancestral_cfg_pp": "dpmpp_2s_ancestral",
    "dpmpp_2m_cfg_pp": "dpmpp_2m",
    "res_multistep": "dpmpp_2m",
    "res_multistep_cfg_pp": "dpmpp_2m",
    "res_multistep_ancestral": "dpmpp_2s_ancestral",
    "gradient_estimation": "euler",
    "er_sde": "dpmpp_3m_sde",
    "seeds_2": "dpmpp_sde",
    "seeds_3": "dpmpp_3m_sde",
    "sa_solver": "dpmpp_3m_sde",
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
